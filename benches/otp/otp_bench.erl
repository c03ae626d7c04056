%% The figures of `in_process` for Erlang/OTP's own supervisor: children say when they start, and crash when told.
-module(otp_bench).
-behaviour(supervisor).
-export([main/1, start_child/1, init_child/2, init/1]).

-define(CRASHES, 20000).
-define(STORM, 1000).
-define(STORMS, 20).
-define(MANY, 100000).
-define(GROUP, 1000).
-define(GROUPS, 20).

%% Prints one figure, given by its name.
main([Figure]) ->
    logger:set_primary_config(level, none),
    process_flag(trap_exit, true),
    Name = list_to_atom(Figure),
    io:format("~.3f~n", [float(measure(Name))]),
    halt(0).

measure(crash) ->
    {_, [Child]} = begin_children(one_for_one, 1),
    Times = lists:sort(crashes(?CRASHES, Child)),
    lists:nth(?CRASHES div 2, Times) / 1.0e3;
measure(storm) ->
    {_, Children} = begin_children(one_for_one, ?STORM),
    Begin = now_ns(),
    storm(?STORMS, Children),
    ?STORMS * ?STORM * 1.0e9 / (now_ns() - Begin);
measure(start) ->
    Begin = now_ns(),
    {_, _} = begin_children(one_for_one, ?MANY),
    (now_ns() - Begin) / 1.0e6;
measure(memory) ->
    Before = resident(),
    {_, _} = begin_children(one_for_one, ?MANY),
    (resident() - Before) / ?MANY;
measure(group) ->
    {_, Children} = begin_children(one_for_all, ?GROUP),
    Begin = now_ns(),
    groups(?GROUPS, Children),
    (now_ns() - Begin) / 1.0e6 / ?GROUPS.

%% Starts a supervisor with so many children, as many at once as one call of supervisor:start_link does.
begin_children(Strategy, Count) ->
    {ok, Supervisor} = supervisor:start_link(?MODULE, {Strategy, Count, self()}),
    {Supervisor, started(Count)}.

init({Strategy, Count, Driver}) ->
    Flags = #{strategy => Strategy, intensity => 4294967295, period => 1},
    Child = fun(Id) ->
        #{id => Id, start => {?MODULE, start_child, [Driver]}, restart => permanent, shutdown => 5000}
    end,
    {ok, {Flags, [Child(Id) || Id <- lists:seq(1, Count)]}}.

start_child(Driver) ->
    proc_lib:start_link(?MODULE, init_child, [Driver, self()]).

init_child(Driver, Parent) ->
    Driver ! {started, self(), now_ns()},
    proc_lib:init_ack(Parent, {ok, self()}),
    receive
        crash -> exit(crash)
    end.

started(0) -> [];
started(Count) ->
    receive
        {started, Child, _} -> [Child | started(Count - 1)]
    end.

storm(0, _) -> ok;
storm(Left, Children) ->
    [Child ! crash || Child <- Children],
    storm(Left - 1, started(length(Children))).

groups(0, _) -> ok;
groups(Left, [First | _] = Children) ->
    First ! crash,
    groups(Left - 1, started(length(Children))).

%% Crashes a child again and again; returns the times from crash to start.
crashes(0, _) -> [];
crashes(Left, Child) ->
    Crash = now_ns(),
    Child ! crash,
    receive
        {started, Next, Start} -> [Start - Crash | crashes(Left - 1, Next)]
    end.

now_ns() -> erlang:monotonic_time(nanosecond).

resident() ->
    {ok, Statm} = file:read_file("/proc/self/statm"),
    [_, Pages | _] = string:lexemes(Statm, " "),
    binary_to_integer(Pages) * 4096.
